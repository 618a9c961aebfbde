"""Graph operators: averages over the nodes that drive a node, each kind of graph in its own way."""
