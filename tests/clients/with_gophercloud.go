// A server with ports of one's own, as gophercloud makes it.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/gophercloud/gophercloud"
	"github.com/gophercloud/gophercloud/openstack"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/attachinterfaces"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/floatingips"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/lockunlock"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/extensions/secgroups"
	"github.com/gophercloud/gophercloud/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/layer3/routers"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/portsecurity"
	outside "github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/subnets"
)

func must(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, what+":", err)
		os.Exit(1)
	}
}

// What is changed of a server without touching its guest.
func change(nova *gophercloud.ServiceClient, id string) {
	changed, err := servers.Update(nova, id, servers.UpdateOpts{Name: "gc2", AccessIPv4: "192.0.2.7"}).Extract()
	must("rename", err)
	if changed.Name != "gc2" || changed.AccessIPv4 != "192.0.2.7" {
		must("rename", fmt.Errorf("%v", changed))
	}
	_, err = servers.UpdateMetadata(nova, id, servers.MetadataOpts{"a": "1", "b": "2"}).Extract()
	must("metadata", err)
	_, err = servers.CreateMetadatum(nova, id, servers.MetadatumOpts{"c": "3"}).Extract()
	must("metadatum", err)
	must("delete metadatum", servers.DeleteMetadatum(nova, id, "a").ExtractErr())
	there, err := servers.Metadata(nova, id).Extract()
	must("metadata", err)
	if len(there) != 2 || there["b"] != "2" || there["c"] != "3" {
		must("metadata", fmt.Errorf("%v", there))
	}
	_, err = servers.ResetMetadata(nova, id, servers.MetadataOpts{"d": "4"}).Extract()
	must("reset metadata", err)
	must("lock", lockunlock.Lock(nova, id).ExtractErr())
	must("unlock", lockunlock.Unlock(nova, id).ExtractErr())
}

func main() {
	url, password, image, external := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	provider, err := openstack.AuthenticatedClient(gophercloud.AuthOptions{
		IdentityEndpoint: url + "/identity/v3", Username: "admin", Password: password, DomainName: "Default", TenantName: "admin"})
	must("authenticate", err)
	region := gophercloud.EndpointOpts{Region: "RegionOne"}
	net, err := openstack.NewNetworkV2(provider, region)
	must("network", err)
	nova, err := openstack.NewComputeV2(provider, region)
	must("compute", err)
	up := true
	network, err := networks.Create(net, networks.CreateOpts{Name: "gc", AdminStateUp: &up}).Extract()
	must("network", err)
	subnet, err := subnets.Create(net, subnets.CreateOpts{NetworkID: network.ID, CIDR: "10.6.0.0/24", IPVersion: 4, Name: "gc4"}).Extract()
	must("subnet", err)
	router, err := routers.Create(net, routers.CreateOpts{Name: "gcr", GatewayInfo: &routers.GatewayInfo{NetworkID: external}}).Extract()
	must("router", err)
	_, err = routers.AddInterface(net, router.ID, routers.AddInterfaceOpts{SubnetID: subnet.ID}).Extract()
	must("add interface", err)
	group, err := groups.Create(net, groups.CreateOpts{Name: "gc"}).Extract()
	must("group", err)
	fixed := []ports.IP{{SubnetID: subnet.ID, IPAddress: "10.6.0.10"}}
	first, err := ports.Create(net, ports.CreateOpts{NetworkID: network.ID, Name: "first", FixedIPs: fixed}).Extract()
	must("port", err)
	off := false
	second, err := ports.Create(net, portsecurity.PortCreateOptsExt{
		CreateOptsBuilder: ports.CreateOpts{NetworkID: network.ID, Name: "second", AllowedAddressPairs: nil, SecurityGroups: &[]string{}},
		PortSecurityEnabled: &off}).Extract()
	must("second port", err)
	name := "renamed"
	_, err = ports.Update(net, first.ID, ports.UpdateOpts{Name: &name, SecurityGroups: &[]string{group.ID},
		AllowedAddressPairs: &[]ports.AddressPair{{IPAddress: "10.6.0.200"}}}).Extract()
	must("update port", err)
	server, err := servers.Create(nova, servers.CreateOpts{Name: "gc1", ImageRef: image, FlavorRef: "tiny",
		Networks: []servers.Network{{Port: first.ID}}}).Extract()
	must("server", err)
	must("wait", servers.WaitForStatus(nova, server.ID, "ACTIVE", 60))
	change(nova, server.ID)
	made, err := attachinterfaces.Create(nova, server.ID, attachinterfaces.CreateOpts{PortID: second.ID}).Extract()
	must("attach", err)
	if made.PortID != second.ID {
		must("attach", fmt.Errorf("another port: %v", made))
	}
	pages, err := attachinterfaces.List(nova, server.ID).AllPages()
	must("interfaces", err)
	there, err := attachinterfaces.ExtractInterfaces(pages)
	must("interfaces", err)
	if len(there) != 2 {
		must("interfaces", fmt.Errorf("%d", len(there)))
	}
	_, err = attachinterfaces.Get(nova, server.ID, second.ID).Extract()
	must("interface", err)
	must("add group", secgroups.AddServer(nova, server.ID, "gc").ExtractErr())
	must("remove group", secgroups.RemoveServer(nova, server.ID, "gc").ExtractErr())
	floating, err := outside.Create(net, outside.CreateOpts{FloatingNetworkID: external}).Extract()
	must("floating", err)
	must("associate", floatingips.AssociateInstance(nova, server.ID, floatingips.AssociateOpts{FloatingIP: floating.FloatingIP}).ExtractErr())
	must("disassociate", floatingips.DisassociateInstance(nova, server.ID, floatingips.DisassociateOpts{FloatingIP: floating.FloatingIP}).ExtractErr())
	must("detach", attachinterfaces.Delete(nova, server.ID, second.ID).ExtractErr())
	must("delete", servers.Delete(nova, server.ID).ExtractErr())
	for n := 0; n < 300; n++ {
		if _, err = servers.Get(nova, server.ID).Extract(); err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	must("delete floating", outside.Delete(net, floating.ID).ExtractErr())
	_, err = routers.RemoveInterface(net, router.ID, routers.RemoveInterfaceOpts{SubnetID: subnet.ID}).Extract()
	must("remove interface", err)
	must("delete router", routers.Delete(net, router.ID).ExtractErr())
	must("delete port", ports.Delete(net, first.ID).ExtractErr())
	must("delete port", ports.Delete(net, second.ID).ExtractErr())
	must("delete network", networks.Delete(net, network.ID).ExtractErr())
	must("delete group", groups.Delete(net, group.ID).ExtractErr())
}
