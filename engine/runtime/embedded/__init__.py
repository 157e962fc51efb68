"""The embedded host: one process, no broker; RocksDB is log and state."""
