//! The room as a whole: what was written is read, from wherever it lies.

mod reader;
mod writes;
