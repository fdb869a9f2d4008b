"""Pika, as a program that knows nothing of us uses it.

client.py URL publish EXCHANGE    publishes the messages of a list in JSON on the standard input, each confirmed
client.py URL read QUEUE COUNT    writes so many messages of a queue as such a list, and acknowledges them

A value of the headers is an object with one member, named as AMQP's type: {"S": "text"}, {"F": {"n": {"l": 1}}}.
"""

import base64
import datetime
import decimal
import json
import sys

import pika

PROPERTIES = ("content_type", "correlation_id", "message_id", "reply_to", "type")


def value(typed):
    ((kind, v),) = typed.items()
    if kind == "x":
        return base64.b64decode(v)
    if kind == "T":
        return datetime.datetime.fromtimestamp(v, datetime.timezone.utc)
    if kind == "D":
        return decimal.Decimal(v)
    if kind == "F":
        return {name: value(field) for name, field in v.items()}
    if kind == "A":
        return [value(item) for item in v]
    return v


def typed(v):
    if v is None:
        return {"V": None}
    if isinstance(v, bool):
        return {"t": v}
    if isinstance(v, int):
        return {"l": v}
    if isinstance(v, bytes):
        return {"x": base64.b64encode(v).decode()}
    if isinstance(v, datetime.datetime):
        return {"T": int(v.replace(tzinfo=datetime.timezone.utc).timestamp())}
    if isinstance(v, decimal.Decimal):
        return {"D": str(v)}
    if isinstance(v, dict):
        return {"F": {name: typed(field) for name, field in v.items()}}
    if isinstance(v, list):
        return {"A": [typed(item) for item in v]}
    return {"S": v}


def publish(channel, exchange):
    channel.confirm_delivery()
    for m in json.load(sys.stdin):
        properties = pika.BasicProperties(delivery_mode=2, timestamp=m["timestamp"] or None)
        for name in PROPERTIES:
            setattr(properties, name, (m["properties"] or {}).get(name))
        properties.headers = {name: value(v) for name, v in (m["headers"] or {}).items()}
        channel.basic_publish(exchange, m["key"], base64.b64decode(m["body"] or ""), properties, mandatory=True)


def read(channel, queue, count):
    messages = []
    for method, properties, body in channel.consume(queue, inactivity_timeout=20):
        if method is None:
            break
        messages.append({
            "key": method.routing_key,
            "body": base64.b64encode(body).decode(),
            "timestamp": properties.timestamp or 0,
            "properties": {name: getattr(properties, name) for name in PROPERTIES if getattr(properties, name)},
            "headers": {name: typed(v) for name, v in (properties.headers or {}).items()},
        })
        channel.basic_ack(method.delivery_tag)
        if len(messages) == count:
            break
    json.dump(messages, sys.stdout)


connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
if sys.argv[2] == "publish":
    publish(connection.channel(), sys.argv[3])
else:
    read(connection.channel(), sys.argv[3], int(sys.argv[4]))
connection.close()
