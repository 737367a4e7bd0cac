//! Immutable blobs: packs and sealed logs.
