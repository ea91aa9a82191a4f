"""A stranger by py-libp2p: dials the node at the address and with the key in its arguments, does what
a stranger may and what it may not, and prints what came of it as one line of JSON."""

import json
import sys
import time

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.host.exceptions import StreamFailure
from libp2p.host.ping import ID as PING
from libp2p.identity.identify.identify import ID as IDENTIFY, parse_identify_response
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

address, key, *protocols = sys.argv[1:]
target = ID.from_pubkey(Ed25519PublicKey.from_bytes(bytes.fromhex(key)))


async def until_closed(stream):
    """Reads to the end, however the node brings it about."""
    try:
        while await stream.read(1 << 16):
            pass
    except Exception:
        pass


async def as_somebody(act):
    """Acts on a connection of its own, under a new key: a stranger's life is short. Of one address a
    node takes few at a time, so it may have to come again."""
    for attempt in range(8):
        try:
            host = new_host()
            async with host.run(listen_addrs=[]):
                with trio.fail_after(30):
                    await host.connect(PeerInfo(target, [Multiaddr(address)]))
                    return await act(host)
        except Exception as error:
            if attempt == 7:
                raise
            print(f"again, since {error!r}", file=sys.stderr)
            await trio.sleep(2)


async def greet(host):
    heard = {}
    connection = host.get_network().connections[target]
    connection = connection[0] if isinstance(connection, list) else connection
    heard["multiplexer"] = type(connection.muxed_conn).__name__
    security = connection.muxed_conn.secured_conn
    heard["security"] = "/noise" if "noise" in type(security.conn).__module__ else str(security)
    heard["peer"] = str(connection.muxed_conn.peer_id)

    stream = await host.new_stream(target, [PING])
    heard["pings"] = []
    for n in range(3):
        sent, since = bytes([n]) * 32, time.monotonic()
        await stream.write(sent)
        came = b""
        while len(came) < 32:
            came += await stream.read(32 - len(came))
        assert came == sent
        heard["pings"].append(round((time.monotonic() - since) * 1_000))
    await stream.close()

    stream = await host.new_stream(target, [IDENTIFY])
    told = b""
    try:
        while chunk := await stream.read(1 << 16):
            told += chunk
    except StreamEOF:
        pass
    told = parse_identify_response(told)
    heard["identify"] = {
        "protocols": list(told.protocols),
        "addresses": [str(Multiaddr(address)) for address in told.listen_addrs],
        "agent": told.agent_version,
        "version": told.protocol_version,
        "key": bytes(told.public_key)[-32:].hex(),
    }
    return heard


def opener(protocol):
    async def act(host):
        try:
            await host.new_stream(target, [protocol])
            return protocol
        except StreamFailure as error:
            # Its cause is all that tells a refusal from a lost connection.
            if "protocols not supported" not in f"{error} {error.__cause__} {error.__context__}":
                raise
            return type(error).__name__

    return act


async def talk_nonsense(host):
    stream = await host.new_stream(target, ["/weft/trust/1"])
    await stream.write(b"GET / HTTP/1.1\r\nhost: weft\r\n\r\n")
    await until_closed(stream)
    return "the stream was closed"


async def main():
    heard = await as_somebody(greet)
    heard["opened"] = {protocol: await as_somebody(opener(protocol)) for protocol in protocols}
    heard["garbage"] = await as_somebody(talk_nonsense)
    print(json.dumps(heard))


trio.run(main)
