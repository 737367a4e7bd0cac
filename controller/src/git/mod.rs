//! Caches of the projects' repositories, rebuilt from rows and blobs; verification of packs; diffs.
