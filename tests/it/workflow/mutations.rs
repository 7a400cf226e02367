//! Damaged files are refused with file, line and column, or still mean something; nothing panics.
