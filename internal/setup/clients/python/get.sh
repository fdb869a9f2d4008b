# What verifies and decrypts in Python: the standard library has no signatures and no ciphers.
rm -rf modules
pip3 install --quiet --no-cache-dir --disable-pip-version-check --root-user-action ignore --target modules cryptography==48.0.0
