//! The built-in Postgres: a private cluster made from the system's binaries.
