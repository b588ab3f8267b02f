//! The module as a whole: what was written is read, wherever it is.

mod reader;
mod writes;
