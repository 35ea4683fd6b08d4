// Servers with ports of one's own, volumes and people, as gophercloud makes them. One line of JSON for each step.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud"
	"github.com/gophercloud/gophercloud/openstack"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/attachinterfaces"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/floatingips"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/keypairs"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/lockunlock"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/pauseunpause"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/secgroups"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/servergroups"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/shelveunshelve"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/startstop"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/suspendresume"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/volumeattach"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/openstack/imageservice/v2/images"
	outside "github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/portsecurity"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/subnets"
)

// Whatever could not be done for want of what failed before says so, too.
func step(name string, work func() error) {
	var err error
	func() {
		defer func() {
			if found := recover(); found != nil {
				err = fmt.Errorf("%v", found)
			}
		}()
		err = work()
	}()
	told := map[string]interface{}{"step": name, "ok": err == nil}
	if err != nil {
		told["said"] = strings.Join(strings.Fields(err.Error()), " ")
	}
	line, _ := json.Marshal(struct {
		Step interface{} `json:"step"`
		Ok   interface{} `json:"ok"`
		Said interface{} `json:"said,omitempty"`
	}{told["step"], told["ok"], told["said"]})
	fmt.Println(string(line))
}

func until(is func() bool) error {
	for n := 0; n < 300; n++ {
		if is() {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return fmt.Errorf("it did not come about")
}

func main() {
	url, password, image, external := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	var provider *gophercloud.ProviderClient
	region := gophercloud.EndpointOpts{Region: "RegionOne"}
	var net, nova, cinder, keystone, glance *gophercloud.ServiceClient
	step("authenticate", func() (err error) {
		provider, err = openstack.AuthenticatedClient(gophercloud.AuthOptions{
			IdentityEndpoint: url + "/identity/v3", Username: "admin", Password: password, DomainName: "Default", TenantName: "admin"})
		return
	})
	step("find the services", func() (err error) {
		if net, err = openstack.NewNetworkV2(provider, region); err != nil {
			return
		}
		if nova, err = openstack.NewComputeV2(provider, region); err != nil {
			return
		}
		if cinder, err = openstack.NewBlockStorageV3(provider, region); err != nil {
			return
		}
		if glance, err = openstack.NewImageServiceV2(provider, region); err != nil {
			return
		}
		keystone, err = openstack.NewIdentityV3(provider, region)
		return
	})
	up, off := true, false
	var network *networks.Network
	var subnet *subnets.Subnet
	var router *routers.Router
	var group *groups.SecGroup
	var first, second *ports.Port
	var server *servers.Server
	step("network, subnet, router", func() (err error) {
		if network, err = networks.Create(net, networks.CreateOpts{Name: "gc", AdminStateUp: &up}).Extract(); err != nil {
			return
		}
		if subnet, err = subnets.Create(net, subnets.CreateOpts{NetworkID: network.ID, CIDR: "10.6.0.0/24", IPVersion: 4, Name: "gc4"}).Extract(); err != nil {
			return
		}
		if router, err = routers.Create(net, routers.CreateOpts{Name: "gcr", GatewayInfo: &routers.GatewayInfo{NetworkID: external}}).Extract(); err != nil {
			return
		}
		_, err = routers.AddInterface(net, router.ID, routers.AddInterfaceOpts{SubnetID: subnet.ID}).Extract()
		return
	})
	step("security group and rule", func() (err error) {
		if group, err = groups.Create(net, groups.CreateOpts{Name: "gc"}).Extract(); err != nil {
			return
		}
		_, err = rules.Create(net, rules.CreateOpts{Direction: "ingress", EtherType: rules.EtherType4, SecGroupID: group.ID, PortRangeMin: 22, PortRangeMax: 22, Protocol: rules.ProtocolTCP}).Extract()
		return
	})
	step("ports, with an address, without security, with pairs", func() (err error) {
		fixed := []ports.IP{{SubnetID: subnet.ID, IPAddress: "10.6.0.10"}}
		if first, err = ports.Create(net, ports.CreateOpts{NetworkID: network.ID, Name: "first", FixedIPs: fixed}).Extract(); err != nil {
			return
		}
		if second, err = ports.Create(net, portsecurity.PortCreateOptsExt{
			CreateOptsBuilder:   ports.CreateOpts{NetworkID: network.ID, Name: "second", SecurityGroups: &[]string{}},
			PortSecurityEnabled: &off}).Extract(); err != nil {
			return
		}
		name := "renamed"
		_, err = ports.Update(net, first.ID, ports.UpdateOpts{Name: &name, SecurityGroups: &[]string{group.ID},
			AllowedAddressPairs: &[]ports.AddressPair{{IPAddress: "10.6.0.200"}}}).Extract()
		return
	})
	step("key pair", func() (err error) { _, err = keypairs.Create(nova, keypairs.CreateOpts{Name: "gc"}).Extract(); return })
	step("server group", func() (err error) {
		made, err := servergroups.Create(nova, servergroups.CreateOpts{Name: "gc", Policies: []string{"anti-affinity"}}).Extract()
		if err == nil {
			err = servergroups.Delete(nova, made.ID).ExtractErr()
		}
		return
	})
	step("create server", func() (err error) {
		if server, err = servers.Create(nova, keypairs.CreateOptsExt{CreateOptsBuilder: servers.CreateOpts{Name: "gc1", ImageRef: image, FlavorRef: "tiny",
			Networks: []servers.Network{{Port: first.ID}}}, KeyName: "gc"}).Extract(); err != nil {
			return
		}
		return servers.WaitForStatus(nova, server.ID, "ACTIVE", 60)
	})
	step("rename, access address", func() error {
		changed, err := servers.Update(nova, server.ID, servers.UpdateOpts{Name: "gc2", AccessIPv4: "192.0.2.7"}).Extract()
		if err == nil && (changed.Name != "gc2" || changed.AccessIPv4 != "192.0.2.7") {
			err = fmt.Errorf("%v", changed)
		}
		return err
	})
	step("metadata", func() (err error) {
		if _, err = servers.UpdateMetadata(nova, server.ID, servers.MetadataOpts{"a": "1", "b": "2"}).Extract(); err != nil {
			return
		}
		if _, err = servers.CreateMetadatum(nova, server.ID, servers.MetadatumOpts{"c": "3"}).Extract(); err != nil {
			return
		}
		if err = servers.DeleteMetadatum(nova, server.ID, "a").ExtractErr(); err != nil {
			return
		}
		there, err := servers.Metadata(nova, server.ID).Extract()
		if err == nil && (len(there) != 2 || there["b"] != "2" || there["c"] != "3") {
			err = fmt.Errorf("%v", there)
		}
		return
	})
	step("lock and unlock", func() error {
		if err := lockunlock.Lock(nova, server.ID).ExtractErr(); err != nil {
			return err
		}
		return lockunlock.Unlock(nova, server.ID).ExtractErr()
	})
	power := func(name, reached string, there, back func() error) {
		step(name, func() (err error) {
			if err = there(); err != nil {
				return
			}
			if err = servers.WaitForStatus(nova, server.ID, reached, 60); err != nil {
				return
			}
			if err = back(); err != nil {
				return
			}
			return servers.WaitForStatus(nova, server.ID, "ACTIVE", 60)
		})
	}
	id := func() string { return server.ID }
	power("stop and start", "SHUTOFF", func() error { return startstop.Stop(nova, id()).ExtractErr() }, func() error { return startstop.Start(nova, id()).ExtractErr() })
	power("pause and unpause", "PAUSED", func() error { return pauseunpause.Pause(nova, id()).ExtractErr() }, func() error { return pauseunpause.Unpause(nova, id()).ExtractErr() })
	power("suspend and resume", "SUSPENDED", func() error { return suspendresume.Suspend(nova, id()).ExtractErr() }, func() error { return suspendresume.Resume(nova, id()).ExtractErr() })
	power("shelve and unshelve", "SHELVED_OFFLOADED", func() error { return shelveunshelve.Shelve(nova, id()).ExtractErr() }, func() error {
		return shelveunshelve.Unshelve(nova, id(), shelveunshelve.UnshelveOpts{}).ExtractErr()
	})
	power("resize and confirm", "VERIFY_RESIZE", func() error { return servers.Resize(nova, id(), servers.ResizeOpts{FlavorRef: "small"}).ExtractErr() }, func() error { return servers.ConfirmResize(nova, id()).ExtractErr() })
	power("resize and revert", "VERIFY_RESIZE", func() error { return servers.Resize(nova, id(), servers.ResizeOpts{FlavorRef: "medium"}).ExtractErr() }, func() error { return servers.RevertResize(nova, id()).ExtractErr() })
	step("reboot", func() error {
		if err := servers.Reboot(nova, server.ID, servers.RebootOpts{Type: servers.HardReboot}).ExtractErr(); err != nil {
			return err
		}
		return servers.WaitForStatus(nova, server.ID, "ACTIVE", 60)
	})
	step("rebuild", func() error {
		if _, err := servers.Rebuild(nova, server.ID, servers.RebuildOpts{ImageRef: image, Name: "gc2"}).Extract(); err != nil {
			return err
		}
		return servers.WaitForStatus(nova, server.ID, "ACTIVE", 60)
	})
	step("create image", func() error {
		made, err := servers.CreateImage(nova, server.ID, servers.CreateImageOpts{Name: "gc"}).ExtractImageID()
		if err != nil {
			return err
		}
		if err = until(func() bool { found, err := images.Get(glance, made).Extract(); return err == nil && found.Status == "active" }); err != nil {
			return err
		}
		return images.Delete(glance, made).ExtractErr()
	})
	step("interface attached and detached", func() error {
		made, err := attachinterfaces.Create(nova, server.ID, attachinterfaces.CreateOpts{PortID: second.ID}).Extract()
		if err != nil {
			return err
		}
		if made.PortID != second.ID {
			return fmt.Errorf("another port: %v", made)
		}
		pages, err := attachinterfaces.List(nova, server.ID).AllPages()
		if err != nil {
			return err
		}
		there, err := attachinterfaces.ExtractInterfaces(pages)
		if err != nil || len(there) != 2 {
			return fmt.Errorf("%d interfaces, %v", len(there), err)
		}
		return attachinterfaces.Delete(nova, server.ID, second.ID).ExtractErr()
	})
	step("security group of a server", func() error {
		if err := secgroups.AddServer(nova, server.ID, "default").ExtractErr(); err != nil {
			return err
		}
		return secgroups.RemoveServer(nova, server.ID, "default").ExtractErr()
	})
	step("floating IP", func() error {
		floating, err := outside.Create(net, outside.CreateOpts{FloatingNetworkID: external}).Extract()
		if err != nil {
			return err
		}
		if err = floatingips.AssociateInstance(nova, server.ID, floatingips.AssociateOpts{FloatingIP: floating.FloatingIP}).ExtractErr(); err != nil {
			return err
		}
		if err = floatingips.DisassociateInstance(nova, server.ID, floatingips.DisassociateOpts{FloatingIP: floating.FloatingIP}).ExtractErr(); err != nil {
			return err
		}
		return outside.Delete(net, floating.ID).ExtractErr()
	})
	step("volume: create, attach, detach, snapshot, delete", func() error {
		made, err := volumes.Create(cinder, volumes.CreateOpts{Size: 1, Name: "gc"}).Extract()
		if err != nil {
			return err
		}
		if err = volumes.WaitForStatus(cinder, made.ID, "available", 60); err != nil {
			return err
		}
		if _, err = volumeattach.Create(nova, server.ID, volumeattach.CreateOpts{VolumeID: made.ID}).Extract(); err != nil {
			return err
		}
		if err = volumes.WaitForStatus(cinder, made.ID, "in-use", 60); err != nil {
			return err
		}
		if err = volumeattach.Delete(nova, server.ID, made.ID).ExtractErr(); err != nil {
			return err
		}
		if err = volumes.WaitForStatus(cinder, made.ID, "available", 60); err != nil {
			return err
		}
		snapshot, err := snapshots.Create(cinder, snapshots.CreateOpts{VolumeID: made.ID, Name: "gc"}).Extract()
		if err != nil {
			return err
		}
		if err = snapshots.WaitForStatus(cinder, snapshot.ID, "available", 60); err != nil {
			return err
		}
		if err = snapshots.Delete(cinder, snapshot.ID).ExtractErr(); err != nil {
			return err
		}
		if err = until(func() bool { _, err := snapshots.Get(cinder, snapshot.ID).Extract(); return err != nil }); err != nil {
			return err
		}
		return volumes.Delete(cinder, made.ID, volumes.DeleteOpts{}).ExtractErr()
	})
	step("project, user, role", func() error {
		project, err := projects.Create(keystone, projects.CreateOpts{Name: "gc"}).Extract()
		if err != nil {
			return err
		}
		user, err := users.Create(keystone, users.CreateOpts{Name: "gc", Password: "correct horse", DefaultProjectID: project.ID}).Extract()
		if err != nil {
			return err
		}
		pages, err := roles.List(keystone, roles.ListOpts{Name: "member"}).AllPages()
		if err != nil {
			return err
		}
		found, err := roles.ExtractRoles(pages)
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%v, %v", found, err)
		}
		if err = roles.Assign(keystone, found[0].ID, roles.AssignOpts{UserID: user.ID, ProjectID: project.ID}).ExtractErr(); err != nil {
			return err
		}
		if err = roles.Unassign(keystone, found[0].ID, roles.UnassignOpts{UserID: user.ID, ProjectID: project.ID}).ExtractErr(); err != nil {
			return err
		}
		if err = users.Delete(keystone, user.ID).ExtractErr(); err != nil {
			return err
		}
		return projects.Delete(keystone, project.ID).ExtractErr()
	})
	step("delete server", func() error {
		if err := servers.Delete(nova, server.ID).ExtractErr(); err != nil {
			return err
		}
		return until(func() bool { _, err := servers.Get(nova, server.ID).Extract(); return err != nil })
	})
	step("delete key pair, router, ports, network, group", func() error {
		if err := keypairs.Delete(nova, "gc").ExtractErr(); err != nil {
			return err
		}
		if _, err := routers.RemoveInterface(net, router.ID, routers.RemoveInterfaceOpts{SubnetID: subnet.ID}).Extract(); err != nil {
			return err
		}
		for _, one := range []error{routers.Delete(net, router.ID).ExtractErr(), ports.Delete(net, first.ID).ExtractErr(),
			ports.Delete(net, second.ID).ExtractErr(), networks.Delete(net, network.ID).ExtractErr(), groups.Delete(net, group.ID).ExtractErr()} {
			if one != nil {
				return one
			}
		}
		return nil
	})
}
