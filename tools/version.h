// The program's version, as `byol --version` prints it and files that it writes carry it.
#ifndef TOOLS_VERSION_H
#define TOOLS_VERSION_H

#define BYOL_VERSION "0.1.0"
#define BYOL_DATE    "2026-11-22" // of this version, on its man pages

#endif
