"""What a disk promises: durable writes, room, faults, and the key file beside the database."""
