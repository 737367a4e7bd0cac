//! A recorded log as it was seen: played on a terminal, or written as an asciicast.

mod cast;
mod file;
mod keyboard;
mod player;
mod recording;
mod screen;
mod timeline;

pub(crate) use self::{
    cast::{About, Cast, Made},
    file::{NewFile, print, write},
    player::{Seen, play},
    recording::Recording,
    timeline::{Pace, Timeline},
};
