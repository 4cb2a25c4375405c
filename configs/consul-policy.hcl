# The least that remora needs where Consul's ACLs are on. Leave out what you do not use.
#
#   consul acl policy create -name remora -rules @consul-policy.hcl
#   consul acl token create -description remora -policy-name remora

# Reading services and the nodes they run on. Narrow the prefixes if you like: an answer from which
# the token's rights leave something out is not believed, so all instances of a watched service, and
# their nodes, must be covered. Claims need the list of all services.
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}

# Operators' overrides and service definitions.
key_prefix "remora/overlay/" {
  policy = "read"
}
key_prefix "remora/services/" {
  policy = "read"
}

# Registering the balancer itself, under the name "remora".
service "remora" {
  policy = "write"
}

# The limit of balancers that drain at once. The session belongs to the node of the agent.
key_prefix "remora/drain/" {
  policy = "write"
}
session_prefix "" {
  policy = "write"
}
