// libp2p 3 is written for Node.js 22; of what it uses, this is all that 20 lacks.
Promise.withResolvers ??= function () {
  const made = {}
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}
