#include "tests/support/ranks.h"

#include <stddef.h>
#include <stdlib.h>

const char *ranks_reason_to_skip(void)
{
#if !HAVE_MPI
    return "built without MPI";
#elif defined __SANITIZE_THREAD__
    return "MPI's own threads are not instrumented";
#else
    return system("command -v mpirun >/dev/null") != 0 ? "mpirun is not installed" : NULL;
#endif
}

void ranks_prepare(void)
{
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 1); // Open MPI 5
    setenv("ASAN_OPTIONS", "detect_leaks=0", 0); // what MPI leaves behind is not ours
}
