// One unit's layer beside another's, without Python or torch: `compare REFERENCE.so UNIT.so BOUND`. Both compute random layers,
// forward and backward, with every kind of adapter; each tensor's distance, relative to its norm, must be within the bound.
//
// It includes the layer's own structures, as the plainest unit has them; no code of a unit but what is in the libraries.
#define LANES 4
#define BLOCK_ROWS 4
#define BLOCK_VECTORS 4
#include "vector.h"
using Number = float;
#include "sums_vector.h"

#include "prenorm.h"
#include "several.h"

#include <dlfcn.h>

#include <cstdio>
#include <map>
#include <random>
#include <string>

using Numbers = std::vector<float>;
using Named = std::map<std::string, Numbers>;

float in_bf16(float x) {
    bf16 y;
    narrow(x, y);
    return wide(y);
}

struct Chance {
    std::mt19937 generator{7};
    // Numbers that bf16 has, so that both precisions start from the same ones.
    Numbers normal(long count, float scale = 1.0f, float mean = 0.0f) {
        std::normal_distribution<float> draw(mean, scale);
        Numbers x(count);
        for (float& one : x) one = in_bf16(draw(generator));
        return x;
    }
    std::vector<int32_t> odd(long count) {
        std::vector<int32_t> x(count);
        for (int32_t& one : x) one = (int32_t)(generator() | 1);
        return x;
    }
};

// A library, and numbers in its precision.
class Unit {
public:
    explicit Unit(const char* path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
        if (!library_) {
            std::printf("%s\n", dlerror());
            std::exit(2);
        }
        long found[13];
        function<void(long*)>("sizes")(found);
        narrow_ = found[0] == sizeof(bf16);
        const size_t ours[] = {sizeof(Mask), sizeof(Matrix), sizeof(Site), sizeof(Sites), sizeof(Norm), sizeof(Layer), sizeof(LayerPass), sizeof(Group), sizeof(Batch),
                               sizeof(Change), sizeof(Member), sizeof(Owners)};
        for (int i = 0; i < 12; ++i)
            if (found[i + 1] != (long)ours[i]) std::exit(3);
    }
    template <class Signature>
    Signature* function(const char* name) const {
        return reinterpret_cast<Signature*>(dlsym(library_, name));
    }
    bool is_narrow() const { return narrow_; }
    // Copies live as long as the unit.
    Number* copy(const Numbers& x) {
        memory_.emplace_back(x.size() + 16);
        float* to = memory_.back();
        if (!narrow_) std::copy(x.begin(), x.end(), to);
        for (size_t i = 0; narrow_ && i < x.size(); ++i) narrow(x[i], reinterpret_cast<bf16*>(to)[i]);
        return to;
    }
    Number* empty(long count) {
        memory_.emplace_back(count + 16);
        std::memset(memory_.back(), 0, (count + 16) * sizeof(float));
        return memory_.back();
    }
    Numbers read(const Number* x, long count) const {
        Numbers y(count);
        for (long i = 0; i < count; ++i) y[i] = narrow_ ? wide(reinterpret_cast<const bf16*>(x)[i]) : x[i];
        return y;
    }

private:
    void* const library_;
    bool narrow_;
    std::vector<Buffer<float>> memory_;
};

struct Case {
    long hidden, heads, inner, rank;
    bool dora, joint, firsts_only, dropped, panels, biased, pre_norm, relative;
    std::vector<std::vector<int64_t>> lengths;  // of each group
};

Dropout rate(bool dropped) {
    if (!dropped) return Dropout{0, 0.0f};
    return Dropout{(int32_t)(0.9 * 4294967296.0 - 2147483648.0), 1.0f / 0.9f};
}

// What a case's layer makes in a unit: results and gradients, by name.
class Run {
public:
    Run(Unit& unit, const Case& c) : unit_(unit), case_(c) {}

    Named results() {
        Layer layer{};
        layer.hidden = case_.hidden, layer.heads = case_.heads, layer.width = case_.hidden / case_.heads;
        layer.firsts_only = case_.firsts_only, layer.probabilities = rate(case_.dropped);
        layer.pre_norm = case_.pre_norm, layer.all_ask = case_.pre_norm || case_.relative, layer.window = case_.pre_norm ? 11 : 0;
        const bool alone = case_.dora || !case_.joint;
        std::vector<long> sources = alone ? std::vector<long>{1, 1, 1} : case_.firsts_only && !layer.all_ask ? std::vector<long>{1, 2} : std::vector<long>{3};
        if (case_.pre_norm) sources = {1};
        layer.source_count = (long)sources.size();
        const long width = case_.hidden * (case_.pre_norm ? 3 : 1);
        for (size_t i = 0; i < sources.size(); ++i)
            set_sites(layer.sources[i], "source" + std::to_string(i), case_.hidden, width, sources[i]);
        set_sites(layer.attention_output, "attention_output", case_.hidden, case_.hidden, 1);
        set_sites(layer.ffn_in, "ffn_in", case_.hidden, case_.inner * (case_.pre_norm ? 2 : 1), 1);
        set_sites(layer.ffn_out, "ffn_out", case_.inner, case_.hidden, 1);
        set_norm(layer.attention_norm, "attention_norm");
        set_norm(layer.ffn_norm, "ffn_norm");
        long number = 0;
        for (Sites* sites : {layer.sources, layer.sources + 1, layer.sources + 2, &layer.attention_output, &layer.ffn_in, &layer.ffn_out})
            sites->number = number++;
        layer.ffn_norm.number = 1;
        run(layer);
        return std::move(found_);
    }

private:
    void set_sites(Sites& sites, const std::string& name, long d_in, long d_out, long count) {
        sites.count = count;
        sites.matrix = Matrix{{}, {}, nullptr, d_in, d_out * count, count};
        for (long i = 0; i < count; ++i) {
            const Numbers w = chance_.normal(d_out * d_in, 1.0f / std::sqrt((float)d_in));
            sites.matrix.parts[i] = unit_.copy(w), sites.matrix.rows[i] = d_out;
            Site& site = sites.parts[i];
            site.d_out = d_out, site.rank = case_.rank, site.scale = 2.0f, site.dropout = rate(case_.dropped);
            const std::string mine = name + "." + std::to_string(i);
            site.A = own(chance_.normal(case_.rank * d_in, 1.0f / std::sqrt((float)d_in)));
            site.B = own(chance_.normal(d_out * case_.rank, 0.3f / std::sqrt((float)case_.rank)));
            site.grad_A = wanted(mine + ".A", case_.rank * d_in), site.grad_B = wanted(mine + ".B", d_out * case_.rank);
            site.grad_bias = case_.biased ? wanted(mine + ".bias", d_out) : nullptr;
            if (!case_.dora) continue;
            Numbers squares(d_out), magnitude = chance_.normal(d_out, 0.1f, 1.0f);
            for (long row = 0; row < d_out; ++row)
                for (long j = 0; j < d_in; ++j) squares[row] += w[row * d_in + j] * w[row * d_in + j];
            site.squared_norms = own(squares), site.magnitude = own(magnitude);
            site.grad_magnitude = wanted(mine + ".magnitude", d_out);
        }
        sites.bias = own(chance_.normal(d_out * count, 0.1f));
        if (!case_.panels) return;
        Number* panel = unit_.empty(d_in * d_out * count);
        unit_.function<void(const Matrix*, Number*)>("pack")(&sites.matrix, panel);
        sites.matrix.panel = panel;
    }

    void set_norm(Norm& norm, const std::string& name) {
        norm.weight = own(chance_.normal(case_.hidden, 0.1f, 1.0f)), norm.bias = own(chance_.normal(case_.hidden, 0.1f));
        norm.epsilon = 1e-5f, norm.dropout = rate(case_.dropped);
        norm.grad_bias = case_.biased ? wanted(name + ".bias", case_.hidden) : nullptr;
    }

    void run(Layer& layer) {
        std::vector<Group> groups;
        std::vector<int64_t> firsts;
        long tokens = 0;
        for (const auto& lengths : case_.lengths) {
            const long longest = (*std::max_element(lengths.begin(), lengths.end()) + 7) / 8 * 8;
            groups.push_back(Group{lengths.data(), (long)lengths.size(), longest, tokens, (long)firsts.size(), nullptr, 0, 0, 0});
            for (const int64_t length : lengths) firsts.push_back(tokens), tokens += length;
        }
        tokens = (tokens + 31) / 32 * 32;
        if (case_.pre_norm) layer.angles = own(chance_.normal(tokens * layer.width));
        constexpr long LONGEST = 72, ROWS = 47;  // far distances share rows
        std::vector<int32_t> places;
        for (long d = 1 - LONGEST; d < LONGEST; ++d) places.push_back((int32_t)std::clamp(d + ROWS / 2, 0L, ROWS - 1));
        if (case_.relative)
            layer.distances = Distances{own(chance_.normal(ROWS * layer.hidden)), places.data(), ROWS, LONGEST, case_.joint, 1, rate(case_.dropped),
                                        wanted("distances", ROWS * layer.hidden)};
        const auto columns = chance_.odd(std::max(case_.hidden, case_.inner) + 200);
        const Batch batch{tokens, (long)firsts.size(), (long)groups.size(), groups.data(), firsts.data(), case_.dropped ? columns.data() : nullptr, nullptr, nullptr};
        LayerPass pass{};
        pass.layer = layer;
        unit_.function<int(LayerPass*, long, const Batch*)>("layer_sizes")(&pass, 1, &batch);
        const auto numbers = chance_.odd(pass.number_count);
        const long rows = case_.firsts_only ? batch.texts : tokens, size = rows * case_.hidden, all = tokens * case_.hidden;
        const Numbers x = chance_.normal(all), above = chance_.normal(size);
        float *stream = own(x), *out = memory(size), *grad = own(above), *grad_x = memory(all);
        Number* low = unit_.is_narrow() ? unit_.copy(x) : stream;
        Number *out_low = unit_.is_narrow() ? unit_.empty(size) : nullptr, *below = unit_.empty(all);
        const Buffer<char> keep(pass.size);
        pass.numbers = numbers.data(), pass.keep = keep, pass.x = stream, pass.low = low, pass.out = out, pass.out_low = out_low;
        pass.grad = grad, pass.grad_x = grad_x, pass.below = below;
        if (call("forward_pass", pass, batch) || call("backward_pass", pass, batch)) std::exit(4);
        if (!case_.dropped) run_several(layer, batch, stream, low, out);
        long used = 0;  // idle tokens are nobody's
        for (const auto& lengths : case_.lengths)
            for (const int64_t length : lengths) used += length;
        found_["out"] = Numbers(out, out + (case_.firsts_only ? size : used * case_.hidden));
        const bool both = unit_.is_narrow() || case_.pre_norm;
        Numbers through = unit_.read(below, used * case_.hidden);
        for (size_t i = 0; both && i < through.size(); ++i) through[i] += grad_x[i];
        found_["x"] = through;
        for (const auto& [name, place] : gradients_) found_[name] = Numbers(place.first, place.first + place.second);
    }

    // The same texts, every other one with the layer's adapters as a classifier of several, and as `out` has it then; the rest
    // without.
    void run_several(const Layer& layer, Batch batch, const float* stream, const Number* low, const float* out) {
        Change changes[6] = {};
        for (const Sites* sites : {layer.sources, layer.sources + 1, layer.sources + 2, &layer.attention_output, &layer.ffn_in, &layer.ffn_out}) {
            if (!sites->count) continue;
            Change& change = changes[sites->number];
            auto* const panels = reinterpret_cast<char*>(memory(unit_.function<long(const Sites*)>("change_size")(sites) / 4));
            if (unit_.function<int(const Sites*, Change*, char*, long)>("lay_out_change_of")(sites, &change, panels, 2)) std::exit(5);
        }
        const float* biases[2] = {};
        const Member member{changes, biases};
        std::vector<const Member*> members;
        std::vector<int64_t> starts{0}, numbers{0};
        std::vector<int32_t> of_token, of_text;
        for (long g = 0; g < batch.group_count; ++g)
            for (long text = 0; text < batch.groups[g].texts; ++text) {
                const int32_t place = (int32_t)members.size();
                members.push_back(place % 2 ? nullptr : &member);
                starts.push_back(starts.back() + batch.groups[g].lengths[text]), numbers.push_back(place + 1);
                of_token.resize(starts.back(), place), of_text.push_back(place);
            }
        const int32_t idle = (int32_t)members.size();
        members.push_back(nullptr), starts.push_back(batch.tokens), of_token.resize(batch.tokens, idle);
        const Owners texts{numbers.data(), of_text.data(), members.data(), batch.texts};
        const Owners tokens{starts.data(), of_token.data(), members.data(), batch.texts + 1};
        batch.tokens_of = &tokens, batch.texts_of = &texts;
        const long rows = case_.firsts_only ? batch.texts : batch.tokens, hidden = case_.hidden;
        float* const mine = memory(rows * hidden);
        Number* const mine_low = unit_.is_narrow() ? unit_.empty(rows * hidden) : nullptr;
        LayerPass pass{};
        pass.layer = layer, pass.x = stream, pass.low = low, pass.out = mine, pass.out_low = mine_low;
        if (call("forward_pass", pass, batch)) std::exit(6);
        const Owners& owners = case_.firsts_only ? texts : tokens;
        for (long i = 0; i < batch.texts; ++i) {
            const long place = owners.starts[i] * hidden, size = (owners.starts[i + 1] - owners.starts[i]) * hidden;
            // Distances are all rows' and have no adapter of one of them.
            if (i % 2 == 0 && !case_.relative && std::memcmp(mine + place, out + place, size * sizeof(float))) std::exit(7);
        }
        found_["several"] = Numbers(mine, mine + owners.starts[batch.texts] * hidden);
    }

    int call(const char* name, const LayerPass& pass, const Batch& batch) {
        return unit_.function<int(const LayerPass*, long, const Batch*, long)>(name)(&pass, 1, &batch, 2);
    }

    float* memory(long count) {
        kept_.emplace_back(count + 16);
        std::memset(kept_.back(), 0, (count + 16) * sizeof(float));
        return kept_.back();
    }
    float* own(const Numbers& x) {
        float* to = memory(x.size());
        std::copy(x.begin(), x.end(), to);
        return to;
    }
    float* wanted(const std::string& name, long count) {
        float* place = memory(count);
        gradients_[name] = {place, count};
        return place;
    }

    Unit& unit_;
    const Case& case_;
    Chance chance_;
    std::vector<Buffer<float>> kept_;
    std::map<std::string, std::pair<float*, long>> gradients_;
    Named found_;
};

double distance(const Numbers& one, const Numbers& right) {
    double apart = 0, size = 0;
    for (size_t i = 0; i < right.size(); ++i) {
        apart += ((double)one[i] - right[i]) * ((double)one[i] - right[i]);
        size += (double)right[i] * right[i];
    }
    return std::sqrt(apart / size);
}

double norm_of(const Numbers& x) {
    double size = 0;
    for (const float one : x) size += (double)one * one;
    return std::sqrt(size);
}

int main(int, char** given) {
    Unit reference(given[1]), unit(given[2]);
    const double bound = std::atof(given[3]);
    std::vector<Case> cases;
    for (int kind = 0; kind < 24; ++kind) {
        const bool dropped = kind & 1, dora = kind & 2, firsts_only = kind & 4, pre_norm = kind / 8 == 1, relative = kind / 8 == 2;
        if (kind >= 8 && !(dropped ^ dora ^ firsts_only)) continue;  // every pair of the three is among the others
        cases.push_back(Case{64, 2, 96, 3, dora, true, firsts_only, dropped, true, true, pre_norm, relative, {{37, 33}, {5, 1, 12}}});
        // Deeper than wide, heads as wide as a token, more rows than two blocks have: an emulator takes a second for some ten million products.
        cases.push_back(Case{64, 1, 160, 40, dora, false, firsts_only, dropped, false, false, pre_norm, relative, {{70}, {31, 2}}});
    }
    double worst = 0;
    int wrong = 0;
    for (const Case& c : cases) {
        const Named ours = Run(unit, c).results(), right = Run(reference, c).results();
        double largest = 0;
        for (const auto& [name, numbers] : right) largest = std::max(largest, norm_of(numbers));
        for (const auto& [name, numbers] : right) {
            // A key's bias has none but rounding for a gradient, as softmax ignores it.
            if (norm_of(numbers) < 1e-4 * largest) continue;
            const double apart = distance(ours.at(name), numbers);
            if (!(apart <= bound)) {
                std::printf("case %d, %s: %g\n", (int)(&c - cases.data()), name.c_str(), apart);
                ++wrong;
            }
            worst = std::max(worst, apart);
        }
    }
    std::printf("%d cases, the furthest tensor %g from the reference's\n", (int)cases.size(), worst);
    return wrong ? 1 : 0;
}
