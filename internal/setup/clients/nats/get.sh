# The JavaScript client.
npm install --prefix . --silent --no-audit --no-fund nats@2.29.3
