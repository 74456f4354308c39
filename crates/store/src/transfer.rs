//! Rows on their way between a file and a database on a server: in pieces, so that memory does not grow with
//! what is moved.

pub(crate) use rusqlite::types::Value as Cell;

use tokio::sync::mpsc::{Receiver, Sender};

/// A piece is about this large, in bytes.
const PIECE: usize = 256 << 10;
/// Pieces between the one who reads and the one who writes.
const WAITING: usize = 4;

/// Part of a table, or the end of all.
pub(crate) enum Piece {
    /// Rows of the table with this place in [`TABLES`](crate::columns::TABLES), cell by cell.
    Rows(usize, Vec<Cell>),
    /// Nothing is missing. Whoever does not see it has not got everything.
    End,
}

/// The way between one who reads and one who writes, who stops the other when it stops.
pub(crate) fn way() -> (Sender<Piece>, Receiver<Piece>) {
    tokio::sync::mpsc::channel(WAITING)
}

/// Rows that are put together to a piece.
#[derive(Default)]
pub(crate) struct Gathered {
    cells: Vec<Cell>,
    bytes: usize,
}

impl Gathered {
    /// Adds a cell.
    pub(crate) fn add(&mut self, cell: Cell) {
        self.bytes += size_of::<Cell>()
            + match &cell {
                Cell::Text(text) => text.len(),
                Cell::Blob(bytes) => bytes.len(),
                Cell::Null | Cell::Integer(_) | Cell::Real(_) => 0,
            };
        self.cells.push(cell);
    }

    /// What is gathered, where it is enough for a piece. Asked between two rows.
    pub(crate) fn enough(&mut self) -> Option<Vec<Cell>> {
        (self.bytes >= PIECE).then(|| self.rest())
    }

    /// What is gathered.
    pub(crate) fn rest(&mut self) -> Vec<Cell> {
        self.bytes = 0;
        std::mem::take(&mut self.cells)
    }
}
