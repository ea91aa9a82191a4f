// A stranger by js-libp2p: dials the node at the address in its arguments, does what a stranger may
// and what it may not, and prints what came of it as one line of JSON.

import './resolvers.js'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const [address, ...protocols] = process.argv.slice(2)
const target = multiaddr(address)

const node = await createLibp2p({
  addresses: { listen: [] },
  connectionEncrypters: [noise()],
  connectionManager: { reconnectRetries: 0 },
  services: { identify: identify({ runOnConnectionOpen: false }), ping: ping() },
  streamMuxers: [yamux()],
  transports: [tcp()]
})

const hex = (bytes) => Buffer.from(bytes).toString('hex')
const closed = (connection) => new Promise((resolve) => {
  if (connection.status !== 'open') resolve()
  connection.addEventListener('close', () => resolve())
})

const connection = await node.dial(target)
const heard = {
  encryption: connection.encryption,
  multiplexer: connection.multiplexer,
  key: hex(connection.remotePeer.publicKey.raw)
}
heard.pings = []
for (let n = 0; n < 3; n++) heard.pings.push(await node.services.ping.ping(connection.remotePeer))
const told = await node.services.identify.identify(connection)
heard.identify = {
  protocols: told.protocols,
  addresses: told.listenAddrs.map(String),
  agent: told.agentVersion,
  version: told.protocolVersion,
  key: hex(told.publicKey?.slice(-32) ?? [])
}
await connection.close()

// Each protocol on a connection of its own: a stranger's life there is short. Of one address a node
// takes few at a time, so it may have to come again.
heard.opened = {}
for (const protocol of protocols) {
  for (let attempt = 0; attempt < 8 && heard.opened[protocol] === undefined; attempt++) {
    try {
      const connection = await node.dial(target, { force: true })
      try {
        const stream = await connection.newStream(protocol, { signal: AbortSignal.timeout(20_000) })
        heard.opened[protocol] = stream.protocol
      } catch (error) {
        if (error.name !== 'UnsupportedProtocolError') throw error
        heard.opened[protocol] = error.name
      }
      await connection.close()
    } catch (error) {
      console.error('again, since', error)
      await new Promise((resolve) => setTimeout(resolve, 2_000))
    }
  }
}

// What is no message: the node hangs up.
const last = await node.dial(target, { force: true })
const stream = await last.newStream('/weft/trust/1')
const gone = closed(last)
const words = new TextEncoder().encode('GET / HTTP/1.1\r\nhost: weft\r\n\r\n')
try {
  for (let n = 0; n < 4; n++) stream.send(words)
} catch {
  // It was quicker.
}
await gone
heard.garbage = 'the connection was closed'
console.log(JSON.stringify(heard))
await node.stop()
process.exit(0)
