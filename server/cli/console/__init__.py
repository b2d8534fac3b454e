"""What people see: printing, tables, bars, errors as sentences, and streams that may be closed."""
