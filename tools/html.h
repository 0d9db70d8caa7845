// Writing a page of HTML: everything that comes from files is escaped, pictures become part of the
// page. What is written is well-formed XML too.
#ifndef TOOLS_HTML_H
#define TOOLS_HTML_H

#include "formats/image.h"

#include <stdio.h>

// Text between tags or inside a quoted attribute. Bytes that are not UTF-8 and control characters
// become U+FFFD.
void html_text(FILE *page, const char *text);

// printf whose result is escaped; cut after 1 KiB.
void html_format(FILE *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

// An <img> that holds the picture as JPEG. `alt` says in words what it shows; `class` may be NULL.
enum status html_picture(FILE *page, const struct image *picture, int quality, const char *class,
                         const char *alt, struct error *error);

#endif
