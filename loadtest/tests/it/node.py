#!/usr/bin/env python3
"""A stand-in for a gateway node, as small as it can be: publishes through a script of a real Redis, and delivers what
its subscription brings to WebSocket subscribers.

serve --workers N --listen ADDRESS --admin-listen ADDRESS --redis URL --config FILE
"""

import asyncio
import base64
import hashlib
import json
import sys

SCRIPT = """
local replies = {}
for i, key in ipairs(KEYS) do
  replies[i] = redis.call('INCR', key)
  redis.call('PUBLISH', 'channel:' .. key, replies[i] .. ' ' .. ARGV[i])
end
return table.concat(replies, ' ')
"""
SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()


class Redis:
    """One connection."""

    @classmethod
    async def connect(cls, url):
        self = cls()
        host, port = url.removeprefix("redis://").split("/")[0].split(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        return self

    def send(self, *words):
        words = [str(word).encode() for word in words]
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.writer.write(b"*%d\r\n%s" % (len(words), b"".join(parts)))

    async def receive(self):
        line = (await self.reader.readline()).strip()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return (await self.reader.readexactly(int(rest) + 2))[:-2].decode() if int(rest) >= 0 else None
        if kind == b"*":
            return [await self.receive() for _ in range(int(rest))]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        return rest.decode()

    async def ask(self, *words):
        self.send(*words)
        return await self.receive()


class Node:
    def __init__(self, url):
        self.url, self.received, self.subscribers, self.confirmed = url, 0, {}, {}

    async def start(self):
        await (await Redis.connect(self.url)).ask("SCRIPT", "LOAD", SCRIPT)
        self.subscription = await Redis.connect(self.url)
        self.pushes = asyncio.create_task(self.deliver())

    async def deliver(self):
        while True:
            kind, channel, content = await self.subscription.receive()
            topic = channel.removeprefix("channel:")
            if kind == "subscribe":
                self.confirmed[topic].set()
            elif kind == "message":
                self.received += 1
                offset, data = content.split(" ", 1)
                message = '{"topic":"%s","offset":%s,"time":1,"data":%s}' % (topic, offset, data)
                for writer in self.subscribers[topic]:
                    writer.write(frame(message))

    async def serve(self, reader, writer):
        redis = await Redis.connect(self.url)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode().strip().split("\r\n")
                fields = {key.lower(): value.strip() for key, value in (field.split(":", 1) for field in fields)}
                body = (await reader.readexactly(int(fields.get("content-length", 0)))).decode()
                path = line.split(" ")[1]
                if path.startswith("/v1/ws?"):
                    await self.subscribe(path, fields["sec-websocket-key"], redis, writer)
                elif path.startswith("/v1/topics/"):
                    topic = path.removeprefix("/v1/topics/")
                    answer(writer, json.dumps({"topic": topic, "offset": (await publish(redis, [(topic, body)]))[0]}))
                else:
                    items = [(item["topic"], json.dumps(item["data"])) for item in json.loads(body)]
                    offsets = await publish(redis, items)
                    answer(writer, json.dumps({"results": [{"offset": offset} for offset in offsets]}))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def subscribe(self, path, key, redis, writer):
        topics = path.split("topics=")[1].split("&")[0].split(",")
        acknowledged = []
        for topic in topics:
            if topic not in self.confirmed:
                self.confirmed[topic], self.subscribers[topic] = asyncio.Event(), []
                self.subscription.send("SUBSCRIBE", "channel:" + topic)
            await self.confirmed[topic].wait()
            acknowledged.append({"topic": topic, "offset": int(await redis.ask("GET", topic) or 0)})
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        writer.write(frame(json.dumps({"type": "subscribed", "topics": acknowledged, "errors": []})))
        for topic in topics:
            self.subscribers[topic].append(writer)

    async def administrate(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        answer(writer, "tickcast_broker_publications_received_total %d\n" % self.received)


async def publish(redis, items):
    topics, payloads = zip(*items)
    offsets = await redis.ask("EVALSHA", SHA, len(topics), *topics, *payloads)
    return [int(offset) for offset in offsets.split(" ")]


def answer(writer, body):
    writer.write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode())


def frame(text):
    length = len(text)
    return (bytes([0x81, length]) if length < 126 else bytes([0x81, 126]) + length.to_bytes(2, "big")) + text.encode()


async def main(listen, admin, url):
    node = Node(url)
    await node.start()
    servers = [(node.serve, listen), (node.administrate, admin)]
    for handler, address in servers:
        await asyncio.start_server(handler, *address.split(":"))
    await node.pushes


asyncio.run(main(sys.argv[5], sys.argv[7], sys.argv[9]))
