"""What the Networking API refuses, each under the name by which its clients know it: the name of the class is the
`type` in the body of the error, the fault that it is one of gives the status."""

from __future__ import annotations

from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound


# -- the caller's fault -----------------------------------------------------------------------------------------------
class InvalidInput(BadRequest):
    """A value that cannot be."""


class InvalidCIDR(BadRequest):
    """A range that cannot be."""


class InvalidAllocationPool(BadRequest):
    """A pool whose end lies before its beginning, or that is none."""


class OutOfBoundsAllocationPool(BadRequest):
    """A pool that is not within its subnet."""


class InvalidIpForNetwork(BadRequest):
    """An address that is of no subnet of the network."""


class InvalidIpForSubnet(BadRequest):
    """An address that is not of its subnet, or that no port may have there."""


class IllegalSubnetPoolPrefixBounds(BadRequest):
    """Prefix lengths that do not stand in their order."""


class IllegalSubnetPoolPrefixUpdate(BadRequest):
    """A pool that would lose a prefix."""


class SubnetPoolDeleteError(BadRequest):
    """A pool of which subnets have their ranges."""


class NetworkSubnetPoolAffinityError(BadRequest):
    """Subnets of one network that are not of the same pool."""


class BadRouterRequest(BadRequest):
    """What a router cannot be made to do."""


class BadFloatingipRequest(BadRequest):
    """What a floating IP cannot be made to do."""


class SecurityGroupInvalidPortRange(BadRequest):
    """Ports, or ICMP's type and code, that are no range."""


class SecurityGroupInvalidProtocolForPort(BadRequest):
    """Ports with a protocol that has none."""


class SecurityGroupInvalidIcmpValue(BadRequest):
    """A type or code beyond 255."""


class SecurityGroupMissingIcmpType(BadRequest):
    """A code without its type."""


class SecurityGroupInvalidProtocol(BadRequest):
    """A protocol that has no such name or number."""


class SecurityGroupRuleParameterConflict(BadRequest):
    """A remote address of the other IP version."""


class SecurityGroupRemoteGroupAndRemoteIpPrefix(BadRequest):
    """Two remotes where there is one."""


class SecurityGroupRuleInvalidEtherType(BadRequest):
    """Neither IPv4 nor IPv6."""


class PortSecurityAndIPRequiredForSecurityGroups(BadRequest):
    """Groups, or pairs, of a port without port security."""


class PolicyNotAuthorized(Forbidden):
    """What the roles of the caller do not let them do."""


# -- no such thing, or none that the caller may see -------------------------------------------------------------------
class NetworkNotFound(NotFound):
    """No such network."""


class SubnetNotFound(NotFound):
    """No such subnet."""


class PortNotFound(NotFound):
    """No such port."""


class SecurityGroupNotFound(NotFound):
    """No such security group."""


class SecurityGroupRuleNotFound(NotFound):
    """No such rule."""


class RouterNotFound(NotFound):
    """No such router."""


class RouterInterfaceNotFound(NotFound):
    """The router has no port there."""


class FloatingIPNotFound(NotFound):
    """No such floating IP."""


class ExternalGatewayForFloatingIPNotFound(NotFound):
    """No router leads from that port to the external network."""


class RbacPolicyNotFound(NotFound):
    """No such policy."""


class SubnetPoolNotFound(NotFound):
    """No such subnet pool."""


class TagNotFound(NotFound):
    """No such tag."""


class ExtensionNotFound(NotFound):
    """No such extension."""


class AgentNotFound(NotFound):
    """No such agent."""


# -- refused by state -------------------------------------------------------------------------------------------------
class OverQuota(Conflict):
    """More than the project may have."""


class NetworkInUse(Conflict):
    """A network with ports."""


class SubnetInUse(Conflict):
    """A subnet with addresses that are in use."""


class PortInUse(Conflict):
    """A port that something holds."""


class ServicePortInUse(Conflict):
    """A port of a router, or of a floating IP: it goes with that."""


class RouterInUse(Conflict):
    """A router with ports."""


class RouterInterfaceInUseByFloatingIP(Conflict):
    """A floating IP leads through it."""


class RouterInterfaceInUseByRoute(Conflict):
    """A route of the router leads through it."""


class RouterExternalGatewayInUseByFloatingIp(Conflict):
    """A floating IP leads through it."""


class SecurityGroupInUse(Conflict):
    """A group with ports, or one that a rule names."""


class SecurityGroupCannotRemoveDefault(Conflict):
    """The default group of a project."""


class SecurityGroupCannotUpdateDefault(Conflict):
    """The default group of a project."""


class SecurityGroupDefaultAlreadyExists(Conflict):
    """A project has one default group."""


class SecurityGroupRuleExists(Conflict):
    """The same rule again."""


class IpAddressInUse(Conflict):
    """An address that another port has."""


class IpAddressGenerationFailure(Conflict):
    """No address is free."""


class MacAddressInUse(Conflict):
    """A MAC that another port of the network has."""


class OverlappingAllocationPools(Conflict):
    """Two pools that share addresses."""


class GatewayConflictWithAllocationPools(Conflict):
    """A gateway that a pool would give away."""


class GatewayIpInUse(Conflict):
    """The gateway is the address of a router's port."""


class FloatingIPPortAlreadyAssociated(Conflict):
    """An address has one floating IP."""


class FlatNetworkInUse(Conflict):
    """A physical network carries one flat network."""


class VlanIdInUse(Conflict):
    """A number that another network has."""


class DefaultExternalNetworkExists(Conflict):
    """One external network is the default."""


class SubnetAllocationError(Conflict):
    """A pool has no such range."""


class SubnetPoolQuotaExceeded(Conflict):
    """More of a pool than a project may have."""


class DuplicatePolicy(Conflict):
    """The same policy again."""


class RbacPolicyInUse(Conflict):
    """Another project uses the network by it."""


class AutoAllocationFailure(Conflict):
    """Nothing can be made for a project that names no network."""


class NoNetworkAvailable(Conflict):
    """No number is left for another network."""
