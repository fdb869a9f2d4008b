"""Another client of Redis Streams: client.py PORT publish|read STREAM. What it publishes it takes as JSON, what it reads it prints as JSON: a list of
messages, each a list of fields, each a name and a value in base64."""
import base64
import json
import sys

import redis


def main():
    port, what, stream = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    r = redis.Redis(host="127.0.0.1", port=port)
    if what == "publish":
        for fields in json.load(sys.stdin):
            parts = [base64.b64decode(x) for field in fields for x in field]
            r.execute_command("XADD", stream, "*", *parts)
        return
    messages = []
    for _, fields in r.xrange(stream):  # a dict, as Python has it
        messages.append([[base64.b64encode(x).decode() for x in field] for field in fields.items()])
    json.dump(messages, sys.stdout)


main()
