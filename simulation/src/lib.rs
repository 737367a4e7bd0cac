//! The sessions of controller and executor, as they are, over a simulated network and in simulated time.
//!
//! One seed decides everything: what people do, how agents behave, how long each message and each transaction takes, and
//! which faults come when; run again, it tells the same story to the letter. The database and the attempts are models; what
//! is decided purely is decided by the real code there too. A [`witness`] who saw what really happened compares it with what
//! the database says.

pub mod book;
pub mod controller;
pub mod dice;
pub mod executor;
pub mod faults;
pub mod guard;
pub mod network;
pub mod noise;
pub mod people;
pub mod run;
pub mod witness;
pub mod world;
