#include "attend.h"

template void attend<BFloat>(const Attend&);
