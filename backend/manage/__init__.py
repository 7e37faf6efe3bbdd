"""What people administer: clients, keys, assets, webhook endpoints, usage, and who may see what."""
