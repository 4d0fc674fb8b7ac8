"""The contract of events and tables, the lake, the engine, the SQL models, the relational tables, settings."""
