// pkgcloud: servers, networks and volumes, run with its directory, a URL and a password. One line of JSON for each step.
const [directory, url, password] = process.argv.slice(2)
const pkgcloud = require(directory + '/node_modules/pkgcloud')
const given = {
  provider: 'openstack', authUrl: url + '/identity', username: 'admin', password, region: 'RegionOne',
  keystoneAuthVersion: 'v3', domainName: 'Default', domainId: 'default', tenantName: 'admin', projectDomainName: 'Default', projectName: 'admin'
}
const compute = pkgcloud.compute.createClient(given)
const network = pkgcloud.network.createClient(given)
const volumes = pkgcloud.blockstorage.createClient(given)
const call = (of, name, ...words) => new Promise((resolve, reject) => {
  const over = setTimeout(() => reject(new Error('no answer')), 60000)
  of[name](...words, (error, found) => { clearTimeout(over); error ? reject(error) : resolve(found) })
})
const step = async (name, work) => {
  try {
    const found = await work()
    console.log(JSON.stringify({ step: name, ok: true }))
    return found
  } catch (error) {
    const said = String(error.message || error).split('\n').join(' ').slice(0, 300)
    console.log(JSON.stringify({ step: name, ok: false, said }))
  }
}
const until = async (ask, is) => {
  for (let n = 0; n < 300; n++) {
    if (is(await ask())) return
    await new Promise(resolve => setTimeout(resolve, 200))
  }
  throw new Error('it did not come about')
}
const check = (is, what) => { if (!is) throw new Error('not so: ' + what) }
;(async () => {
  const image = await step('list images', async () => (await call(compute, 'getImages')).find(one => one.name === 'tiny'))
  const flavor = await step('list flavors', async () => (await call(compute, 'getFlavors')).find(one => one.name === 'tiny'))
  await step('limits', () => call(compute, 'getLimits'))
  const net = await step('create network', () => call(network, 'createNetwork', { name: 'pkg' }))
  const subnet = await step('create subnet', () => call(network, 'createSubnet', { networkId: net.id, cidr: '10.32.0.0/24', ip_version: 4, name: 'pkg4' }))
  await step('create security group and rule', async () => {
    const group = await call(network, 'createSecurityGroup', { name: 'pkg' })
    await call(network, 'createSecurityGroupRule', { securityGroupId: group.id, direction: 'ingress', ethertype: 'IPv4', protocol: 'tcp', portRangeMin: 22, portRangeMax: 22 })
    await call(network, 'destroySecurityGroup', group)
  })
  await step('create key pair', () => call(compute, 'addKey', { name: 'pkg' }))
  const server = await step('create server', async () => {
    const made = await call(compute, 'createServer', { name: 'pkg1', image: image.id, flavor: flavor.id, networks: [{ uuid: net.id }] })
    await until(() => call(compute, 'getServer', made.id), one => one.status === 'RUNNING')
    return made
  })
  await step('list servers', async () => check((await call(compute, 'getServers')).some(one => one.id === server.id), 'it is in the list'))
  await step('reboot', async () => {
    await call(compute, 'rebootServer', server.id, { type: 'HARD' })
    await until(() => call(compute, 'getServer', server.id), one => one.status === 'RUNNING')
  })
  await step('stop and start', async () => {
    await call(compute, 'stopServer', server.id)
    await until(() => call(compute, 'getServer', server.id), one => one.status === 'STOPPED')
    await call(compute, 'startServer', server.id)
    await until(() => call(compute, 'getServer', server.id), one => one.status === 'RUNNING')
  })
  await step('create image', async () => {
    const made = await call(compute, 'createImage', { name: 'pkg-image', server: server.id })
    await until(() => call(compute, 'getImages'), all => all.some(one => one.name === 'pkg-image' && one.status === 'ACTIVE'))
    await call(compute, 'destroyImage', (await call(compute, 'getImages')).find(one => one.name === 'pkg-image').id)
    return made
  })
  await step('volume: create, attach, detach, delete', async () => {
    const made = await call(volumes, 'createVolume', { name: 'pkg', description: '', size: 1 })
    await until(() => call(volumes, 'getVolume', made.id), one => one.status === 'available')
    await call(compute, 'attachVolume', server.id, made.id)
    await until(() => call(volumes, 'getVolume', made.id), one => one.status === 'in-use')
    const held = await call(compute, 'getVolumeAttachments', server.id)
    await call(compute, 'detachVolume', server.id, held[0].id)
    await until(() => call(volumes, 'getVolume', made.id), one => one.status === 'available')
    await call(volumes, 'deleteVolume', made.id)
  })
  await step('delete server', async () => {
    await call(compute, 'destroyServer', server.id)
    await until(async () => (await call(compute, 'getServers')).map(one => one.id), ids => !ids.includes(server.id))
  })
  await step('delete key pair', () => call(compute, 'destroyKey', 'pkg'))
  await step('delete network', async () => {
    await call(network, 'destroySubnet', subnet)
    await call(network, 'destroyNetwork', net)
  })
})()
