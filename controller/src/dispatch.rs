//! Event → apply → persist → effects: the only way a task's state changes.
