//! Duties that nobody calls: each is woken by a signal and by a period.
