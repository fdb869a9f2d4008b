# The Python client.
pip3 install --quiet --disable-pip-version-check --root-user-action ignore --upgrade --target . pika==1.3.2
