"""All the SQL: the connection, then one module per table."""
