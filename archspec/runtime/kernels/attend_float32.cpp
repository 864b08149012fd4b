#include "attend.h"

template void attend<float>(const Attend&);
