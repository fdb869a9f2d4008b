# redis-cli is on the PATH by now; the Python client comes into a folder of its own.
rm -rf python
python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action ignore --target python redis==7.1.0
