# fog-openstack: servers, volumes, networks and people, run with a URL and a password. One line of JSON for each step.
require 'json'
require 'fog/openstack'

url, password = ARGV
def step(name)
  said = yield
  puts JSON.generate(step: name, ok: true)
  said
rescue StandardError => error
  puts JSON.generate(step: name, ok: false, said: error.message.to_s.tr("\n", ' ')[0, 300])
  nil
end
def wait(seconds = 60)
  (seconds * 5).times { return true if yield; sleep 0.2 }
  raise 'it did not come about'
end
given = { openstack_auth_url: "#{url}/identity", openstack_username: 'admin', openstack_api_key: password,
          openstack_project_name: 'admin', openstack_domain_id: 'default' }
compute = step('authenticate') { Fog::OpenStack::Compute.new(given) }
network = Fog::OpenStack::Network.new(given)
image = step('list images') { compute.images.find { |one| one.name == 'tiny' } or raise 'no tiny' }
flavor = step('list flavors') { compute.flavors.find { |one| one.name == 'tiny' } or raise 'no tiny' }
net = step('create network') { network.networks.create(name: 'fog') }
subnet = step('create subnet') { network.subnets.create(network_id: net.id, cidr: '10.31.0.0/24', ip_version: 4, name: 'fog4') }
step('create security group and rule') do
  group = network.security_groups.create(name: 'fog')
  network.security_group_rules.create(security_group_id: group.id, direction: 'ingress', protocol: 'tcp', port_range_min: 22, port_range_max: 22)
  group.destroy
end
step('create key pair') { compute.key_pairs.create(name: 'fog') }
server = step('create server') do
  one = compute.servers.create(name: 'fog1', flavor_ref: flavor.id, image_ref: image.id, key_name: 'fog', nics: [{ net_id: net.id }])
  wait { one.reload; one.state == 'ACTIVE' }
  one
end
step('addresses') { server.addresses['fog'].first['addr'].start_with?('10.31.0.') or raise server.addresses.to_s }
step('metadata') { server.metadata.create(key: 'a', value: '1'); compute.servers.get(server.id).metadata.to_hash['a'] == '1' or raise 'not kept' }
step('rename') { compute.update_server(server.id, name: 'fog2'); compute.servers.get(server.id).name == 'fog2' or raise 'not renamed' }
step('stop and start') do
  server.stop; wait { server.reload; server.state == 'SHUTOFF' }
  server.start; wait { server.reload; server.state == 'ACTIVE' }
end
step('reboot') { server.reboot('HARD'); wait { server.reload; server.state == 'ACTIVE' } }
step('pause and unpause') do
  compute.pause_server(server.id); wait { server.reload; server.state == 'PAUSED' }
  compute.unpause_server(server.id); wait { server.reload; server.state == 'ACTIVE' }
end
step('create image') { server.create_image('fog-image'); wait { compute.images.any? { |one| one.name == 'fog-image' && one.status == 'ACTIVE' } } }
step('resize and confirm') do
  other = compute.flavors.find { |one| one.name == 'small' } or raise 'no flavor small'
  server.resize(other.id); wait { server.reload; server.state == 'VERIFY_RESIZE' }
  server.confirm_resize; wait { server.reload; server.state == 'ACTIVE' }
end
step('volume: create, attach, detach, delete') do
  volumes = Fog::OpenStack::Volume.new(given)
  one = volumes.volumes.create(name: 'fog', description: '', size: 1)
  wait { one.reload; one.status == 'available' }
  compute.attach_volume(one.id, server.id, nil)
  wait { one.reload; one.status == 'in-use' }
  compute.detach_volume(server.id, one.id)
  wait { one.reload; one.status == 'available' }
  one.destroy
end
step('floating IP') do
  outside = network.networks.find { |one| one.name == 'outside' }
  one = network.floating_ips.create(floating_network_id: outside.id)
  one.destroy
end
step('delete server') { server.destroy; wait { compute.servers.get(server.id).nil? } }
step('delete image') { compute.images.find { |one| one.name == 'fog-image' }.destroy }
step('delete key pair') { compute.key_pairs.get('fog').destroy }
step('delete network') { wait { network.ports.all(network_id: net.id).reject { |p| p.device_owner.start_with?('network:') }.empty? }; subnet.destroy; net.destroy }
step('people: project, user, role') do
  identity = Fog::OpenStack::Identity.new(given)
  project = identity.projects.create(name: 'fog')
  user = identity.users.create(name: 'fog', password: 'correct horse')
  role = identity.roles.all.find { |one| one.name == 'member' }
  project.grant_role_to_user(role.id, user.id)
  project.revoke_role_from_user(role.id, user.id)
  user.destroy
  project.destroy
end
