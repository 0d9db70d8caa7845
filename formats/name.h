// What a record's, a class's or a store file's name may be. Names come from foreign archives; they
// are keys and are printed, never opened as paths.
#ifndef FORMATS_NAME_H
#define FORMATS_NAME_H

#include <stddef.h>

// NULL when `name` is a good record name: 1 to LIMIT_NAME_BYTES bytes of UTF-8, no control bytes,
// not absolute, no empty, "." or ".." component. Else why not, as the end of a sentence.
const char *name_fault(const char *name, size_t len);

// The same for a class: a record name of one component.
const char *name_class_fault(const char *name, size_t len);

// The same for a file of a dataset's directory: letters, digits, '.', '_', '-'; not starting with
// '.'.
const char *name_file_fault(const char *name, size_t len);

// The same for free text: valid UTF-8, no control bytes other than newline and tab.
const char *name_text_fault(const char *text, size_t len);

#endif
