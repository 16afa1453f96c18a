"""What survives a restart: tables, migrations, and the vault that seals tokens."""
