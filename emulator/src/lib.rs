//! sfnic
pub mod vfio_user;
pub mod wire;
