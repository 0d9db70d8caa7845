// Directories that appear when they are complete.
#include "tools/output.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/file.h"

static enum status check(const char *directory, const char *partial, struct error *error)
{
    for (int i = 0; i < 2; i++) {
        const char *path = i == 0 ? directory : partial;
        if (file_exists(path)) {
            return error_set(error, STATUS_EXISTS, path, NOWHERE, NOWHERE,
                             "exists already: choose another name, or remove it");
        }
    }
    return STATUS_OK;
}

static enum status name_partial(const char *directory, char **partial, struct error *error)
{
    if (asprintf(partial, "%s.partial", directory) < 0) {
        *partial = NULL;
        return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory for a path");
    }
    return STATUS_OK;
}

enum status output_check(const char *directory, struct error *error)
{
    char *partial;
    enum status status = name_partial(directory, &partial, error);
    if (status == STATUS_OK) {
        status = check(directory, partial, error);
    }
    free(partial);
    return status;
}

enum status output_begin(const char *directory, char **partial, struct error *error)
{
    enum status status = name_partial(directory, partial, error);
    if (status == STATUS_OK) {
        status = check(directory, *partial, error);
    }
    return status == STATUS_OK ? file_make_directories(*partial, error) : status;
}

enum status output_finish(const char *partial, const char *directory, struct error *error)
{
    return file_rename(partial, directory, error);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

void output_remove(const char *directory)
{
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
