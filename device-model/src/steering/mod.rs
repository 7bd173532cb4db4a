//! Flow tables, groups and entries, and the walk of a packet through them.
