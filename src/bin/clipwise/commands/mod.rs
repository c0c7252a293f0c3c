//! One module per subcommand.

pub mod embed;
pub mod encode;
pub mod evaluate;
pub mod events;
pub mod live;
pub mod models;
pub mod plot;
pub mod probe;
pub mod speed;
pub mod tag;
pub mod transcribe;
