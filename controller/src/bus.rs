//! Signals between the parts of one replica, and between replicas by NOTIFY. They carry no truth: a lost one is repaired by a poll.
