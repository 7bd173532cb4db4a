//! sfnic
