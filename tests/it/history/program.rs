//! The program itself: appends at the end of a run, and answers.
