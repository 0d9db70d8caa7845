// MD5, for orders that others have defined by it; not for anything that must resist an attacker.
#ifndef FORMATS_MD5_H
#define FORMATS_MD5_H

#include <stddef.h>
#include <stdint.h>

#define MD5_BYTES 16

void md5(const void *bytes, size_t len, uint8_t digest[MD5_BYTES]);

#endif
