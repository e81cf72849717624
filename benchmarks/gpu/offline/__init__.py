"""Half an hour on a GPU machine without a network: what it lacks is packed here, and measured with there."""
