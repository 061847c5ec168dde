/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line.h - lines from a person, edited on a terminal.
 */
#ifndef MOE_CLI_LINE_H
#define MOE_CLI_LINE_H

struct line_reader;

/* NULL: no memory. */
struct line_reader *line_open(void);
/* A line without its newline, until the next call; NULL: no more.
 * *interrupted after NULL: 0 the end of input, 1 a signal while something
 * was typed, 2 a signal on an empty line. */
const char *line_read(struct line_reader *r, const char *prompt,
                      int *interrupted);
void        line_close(struct line_reader *r);

#endif /* MOE_CLI_LINE_H */
