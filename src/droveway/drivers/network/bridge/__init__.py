"""Networks made of Linux bridges, VXLAN, nftables, dnsmasq and network namespaces."""
