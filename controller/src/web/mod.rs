//! The listeners: credentials, Host and Origin, git over HTTP, gRPC.
